//! A proxy whose connections can fall silent, as those through a broken network do: nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtime::{OnError, TaskGroup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// Connections up to these numbers are silent.
#[derive(Default)]
struct Silent {
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Silent {
    fn of(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        }
    }
}

/// See the module.
pub struct Proxy {
    pub endpoint: String,
    silent: Arc<Silent>,
    accepted: Arc<AtomicU64>,
    tasks: TaskGroup,
}

impl Proxy {
    /// A proxy of the server at `target`, `http://host:port`.
    pub async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let target = target.strip_prefix("http://").unwrap().to_owned();
        let (silent, accepted) = (Arc::<Silent>::default(), Arc::<AtomicU64>::default());
        let tasks = TaskGroup::new("proxy");
        let proxy =
            Proxy { endpoint, silent: silent.clone(), accepted: accepted.clone(), tasks: tasks.clone() };
        tasks.clone().spawn("accept", OnError::Log, async move {
            loop {
                let (client, _) = tokio::select! {
                    biased;
                    () = tasks.token().cancelled() => return Ok(()),
                    accepted = listener.accept() => accepted?,
                };
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let ((client_in, client_out), (server_in, server_out)) =
                    (client.into_split(), server.into_split());
                let silent = silent.clone();
                let token = tasks.token().clone();
                tasks.spawn("connection", OnError::Log, async move {
                    tokio::select! {
                        biased;
                        () = token.cancelled() => {}
                        () = pump(client_in, server_out, number, silent.of(Way::ToServer)) => {}
                        () = pump(server_in, client_out, number, silent.of(Way::ToClient)) => {}
                    }
                    Ok(())
                });
            }
        });
        proxy
    }

    /// Nothing passes any more on the connections that there are. New ones are whole.
    pub fn silence(&self, ways: &[Way]) {
        let now = self.accepted.load(Ordering::SeqCst);
        ways.iter().for_each(|way| self.silent.of(*way).store(now, Ordering::SeqCst));
    }

    /// Nothing passes on any connection, also on new ones, until [`Proxy::silence`] limits that to the old ones.
    pub fn cut(&self, ways: &[Way]) {
        ways.iter().for_each(|way| self.silent.of(*way).store(u64::MAX, Ordering::SeqCst));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: u64,
    silent: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let is_silent = number <= silent.load(Ordering::SeqCst);
        if !is_silent && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // A silent network does not say that the other side has gone, either.
    if number <= silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
}
