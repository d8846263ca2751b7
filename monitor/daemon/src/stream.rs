//! The byte streams that connect host and monitor: a Unix socket, or TCP.
//!
//! Neither is trusted. Nothing here knows what is said over them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

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

/// A listening socket.
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// TCP.
    Tcp(TcpListener),
}

impl Listener {
    /// Listen. The socket file of a monitor that is gone is replaced; that of one that answers is not.
    pub fn bind(address: &Address) -> Result<Self, Error> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address)?)),
            Address::Socket(path) => {
                remove_stale_socket(path)?;
                UnixListener::bind(path)
                    .map(Self::Unix)
                    .map_err(Error::file("listen on", path))
            }
        }
    }

    /// The address of a TCP listener, with its port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Wait for the next connection.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?; // each message is one write, and somebody waits for it
                notice_loss(&stream)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// Let the connection end by itself when the other machine has vanished: until then no other host is let in.
fn notice_loss(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_WAIT_MAX))
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

/// A connection.
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Stream {
    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// End the connection, for whoever reads or writes it through any handle.
    pub fn shut_down(&self) {
        // fails only if it has ended already
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// How long a read may wait; `None` is for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_another_machine_is_noticed() {
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".to_owned())).expect("it listens");
        let client = TcpStream::connect(listener.tcp_address().expect("TCP")).expect("it accepts");
        let Ok(Stream::Tcp(accepted)) = listener.accept() else {
            panic!("a TCP connection")
        };
        for (stream, watched) in [(&accepted, true), (&client, false)] {
            assert_eq!(SockRef::from(stream).keepalive().expect("an option"), watched);
        }
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), KEEPALIVE_PROBES);
        let bound = socket.tcp_user_timeout().expect("an option");
        assert_eq!(bound, Some(UNACKNOWLEDGED_WAIT_MAX));
        assert_eq!(
            KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES,
            UNACKNOWLEDGED_WAIT_MAX
        );
    }
}
