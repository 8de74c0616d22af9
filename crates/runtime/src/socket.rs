//! TCP sockets which notice that the other machine is gone.
//!
//! A process that dies closes its connections, and its peers learn of it at once. A machine that loses its power or its
//! network closes nothing. So the kernel asks a quiet peer now and then, and gives up a connection whose peer does not
//! acknowledge what was sent to it.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// A connection is asked for signs of life after this much silence.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
/// Time between questions which get no answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Questions without an answer after which a connection is lost.
const KEEPALIVE_QUESTIONS: u32 = 3;
/// How long the peer's machine may leave unacknowledged what was sent.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Sets the options of a new connection to a server.
pub(crate) fn prepare_dialled(stream: &TcpStream) -> io::Result<()> {
    prepare_accepted(stream)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

/// Sets the options of a new connection of a client. It may leave unread what it is sent for as long as it likes, as one that
/// reads a journal by HTTP/1 for a pager does, whereas [`UNACKNOWLEDGED_MAX`] would count that as not acknowledged. Whether
/// clients live which speak HTTP/2, its pings tell.
pub(crate) fn prepare_accepted(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_QUESTIONS);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_asks_for_signs_of_life() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare_dialled(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    /// The timeout ends a connection, too, whose other side acknowledges everything and reads nothing.
    #[tokio::test]
    async fn a_client_may_read_as_slowly_as_it_likes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare_accepted(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
