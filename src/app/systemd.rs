//! What systemd is told (`sd_notify`): ready, reloading, stopping, still alive, and who goes on under another process
//! id. Without systemd all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The gateway serves; also after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read anew. `ready` must follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd is not told of the reload"),
    }
}

/// The gateway stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A new process is being started, to go on in place of this one.
pub fn replacing() {
    tell(&[NotifyState::Status("starting a process to replace this one")]);
}

/// It cannot; this one goes on. `deploy/debian/postinst` knows an upgrade that failed by the first words.
pub fn not_replaced(why: &str) {
    tell(&[NotifyState::Status(&format!("not replaced, serving on: {why}"))]);
}

/// Another process goes on in place of this one.
pub fn succeeded_by(process: u32) {
    tell(&[NotifyState::MainPid(process), NotifyState::Ready, NotifyState::Status("")]);
}

/// The control thread is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say so; nothing if nobody waits for it.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|deadline| deadline / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
