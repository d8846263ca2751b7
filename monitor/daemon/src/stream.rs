//! The byte streams that connect host and monitor: a Unix socket, or TCP.
//!
//! Neither is trusted. Nothing here knows what is said over them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use crate::error::Error;

/// How long a TCP connection may be silent before the other machine is asked for a sign of life.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Pause between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered questions after which the connection has ended.
const KEEPALIVE_PROBES: u32 = 4;
/// The same bound on what was sent and is not acknowledged, of which no questions are asked.
const UNACKNOWLEDGED_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where the monitor listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// Host and port; port 0 means a free one.
    Tcp(String),
}

/// A connection, of either kind.
pub type Stream = Socket;

/// A listening socket.
pub struct Listener(Socket);

impl Listener {
    /// Listen. The socket file of a monitor that is gone is replaced; that of one that answers is not.
    pub fn bind(address: &Address) -> Result<Self, Error> {
        Ok(Self(match address {
            Address::Tcp(address) => TcpListener::bind(address)?.into(),
            Address::Socket(path) => {
                remove_stale_socket(path)?;
                UnixListener::bind(path).map_err(Error::file("listen on", path))?.into()
            }
        }))
    }

    /// The address of a TCP listener, with its port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()?.as_socket()
    }

    /// Wait for the next connection.
    pub fn accept(&self) -> io::Result<Stream> {
        let (stream, peer) = self.0.accept()?;
        if peer.as_socket().is_some() {
            stream.set_tcp_nodelay(true)?; // each message is one write, and somebody waits for it
            notice_loss(&stream)?;
        }
        Ok(stream)
    }
}

/// Let the connection end by itself when the other machine has vanished: until then no other host is let in.
fn notice_loss(stream: &Stream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    stream.set_tcp_keepalive(&keepalive)?;
    stream.set_tcp_user_timeout(Some(UNACKNOWLEDGED_WAIT_MAX))
}

fn remove_stale_socket(path: &Path) -> Result<(), Error> {
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        if UnixStream::connect(path).is_ok() {
            return Err(Error::State {
                path: path.to_owned(),
                problem: "another monitor listens here: stop it, or use another path",
            });
        }
        std::fs::remove_file(path).map_err(Error::file("remove", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn the_end_of_another_machine_is_noticed() {
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".to_owned())).expect("it listens");
        let client = TcpStream::connect(listener.tcp_address().expect("TCP")).expect("it accepts");
        let accepted = listener.accept().expect("a connection");
        let watches = |socket: SockRef<'_>| socket.keepalive().expect("an option");
        assert!(watches(SockRef::from(&accepted)) && !watches(SockRef::from(&client)));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), KEEPALIVE_IDLE);
        assert_eq!(
            accepted.tcp_keepalive_interval().expect("an option"),
            KEEPALIVE_INTERVAL
        );
        assert_eq!(accepted.tcp_keepalive_retries().expect("an option"), KEEPALIVE_PROBES);
        let bound = accepted.tcp_user_timeout().expect("an option");
        assert_eq!(bound, Some(UNACKNOWLEDGED_WAIT_MAX));
        assert_eq!(
            KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES,
            UNACKNOWLEDGED_WAIT_MAX
        );
    }
}
