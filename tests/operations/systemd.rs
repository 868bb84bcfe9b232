//! What systemd is told, and the sockets that it passes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use valgate::demo::api::SampleApi;

use crate::process::{Process, routes, write, yaml};
use crate::support::{eventually, get, write_certificates};

#[tokio::test]
async fn systemd_is_told_of_every_step() {
    let api = SampleApi::start().await.unwrap();
    let dir = Arc::new(TempDir::new().unwrap());
    write_certificates(dir.path());
    write(dir.path(), "valgate.yaml", &yaml(&routes(api.address(), &["/orders/a"])));
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&told);
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = socket.recv(&mut message) {
            heard.lock().unwrap().push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
    });
    let mut process = Process::spawn(Arc::clone(&dir), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let position = |what: &str| told.lock().unwrap().iter().position(|message| message.contains(what));
    eventually("READY=1", || async { position("READY=1").is_some() }).await;
    eventually("WATCHDOG=1", || async { position("WATCHDOG=1").is_some() }).await;
    process.reload().await;
    let reloading = position("RELOADING=1").unwrap();
    assert!(told.lock().unwrap()[reloading].contains("MONOTONIC_USEC="));
    let ready_again = || told.lock().unwrap().iter().skip(reloading).any(|message| message == "READY=1\n");
    eventually("READY=1 after the reload", || async { ready_again() }).await;
    process.hand_over().await;
    let successor = format!("MAINPID={}\n", process.id());
    eventually("MAINPID", || async { position(&successor).is_some() }).await;
    assert!(process.exit().await.success());
    assert_eq!(position("STOPPING=1"), None, "the service goes on");
    process.signal("TERM");
    eventually("STOPPING=1", || async { position("STOPPING=1").is_some() }).await;
}

#[tokio::test]
async fn a_socket_that_systemd_passes_is_used_and_not_bound_again() {
    let api = SampleApi::start().await.unwrap();
    let dir = Arc::new(TempDir::new().unwrap());
    write_certificates(dir.path());
    // Bound without SO_REUSEPORT, as systemd does: nobody could bind it a second time.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = yaml(&routes(api.address(), &["/orders/a"]));
    let text = text.replacen("'127.0.0.1:0', plaintext", &format!("'{address}', plaintext"), 1);
    write(dir.path(), "valgate.yaml", &text);
    let process = Process::spawn(dir, |command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        *command = Command::new("sh");
        command
            .args(["-c", "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"", "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stderr(Stdio::piped());
    });
    process.wait_for_line("answering probes").await;
    assert_eq!(process.plain(), address);
    for _ in 0..10 {
        assert_eq!(get(address, "/orders/a", &[]).await.status, 200);
    }
}
