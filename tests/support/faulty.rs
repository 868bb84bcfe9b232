//! A TCP proxy that stands between two parties and fails as it is told, and the dice that decide how.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How bytes fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// Connections are cut, and new ones closed at once.
    Refused,
    /// Nothing passes and nothing is closed, as with a partition that drops packets.
    Silent,
    /// What comes back comes in small pieces with pauses.
    Slow,
    /// An answer breaks off in the middle, and its connection with it.
    CutOff,
    /// Something else answers, and not in the protocol.
    Garbage,
}

/// The proxy; ends when dropped.
pub struct FaultyWay {
    /// Where it listens.
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

impl FaultyWay {
    /// Leads to this port of 127.0.0.1.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        tokio::spawn(async move {
            let mut accepting = ways.clone();
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted,
                    changed = accepting.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                if let Ok((client, _)) = client
                    && *ways.borrow() != Way::Refused
                {
                    tokio::spawn(carry(client, port, ways.clone()));
                }
            }
        });
        Self { address, way }
    }

    /// From now on, also for connections that there are.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

/// Ends when either side does, or when the way says so. An error of a socket is one of the faults.
async fn carry(mut client: TcpStream, port: u16, mut ways: watch::Receiver<Way>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        let way = *ways.borrow_and_update();
        if way == Way::Refused {
            return Ok(());
        }
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut up), if way != Way::Silent => match read? {
                0 => return Ok(()),
                count => server.write_all(&up[..count]).await?,
            },
            read = server.read(&mut down), if way != Way::Silent => match read? {
                0 => return Ok(()),
                count => match way {
                    Way::Slow => {
                        for piece in down[..count].chunks(32) {
                            client.write_all(piece).await?;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                    Way::CutOff => return client.write_all(&down[..count / 2]).await,
                    Way::Garbage => {
                        // No byte of any protocol's beginning; TLS and checksums are there against subtler changes.
                        down[..count].iter_mut().for_each(|byte| *byte |= 0x80);
                        client.write_all(&down[..count]).await?;
                    }
                    _ => client.write_all(&down[..count]).await?,
                },
            },
        }
    }
}

/// Numbers that follow from a seed (`SplitMix64`).
pub struct Dice(pub u64);

impl Dice {
    /// One below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// Waits for a time below this.
    pub async fn wait(&mut self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(millis))).await;
    }
}
