//! A way to a broker which can be cut, as networks and killed processes do.

use runtime::{BoxError, OnError, TaskGroup};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Forwards connections from a port of its own to a broker.
pub struct Proxy {
    endpoint: Arc<str>,
    tasks: TaskGroup,
    target: Arc<str>,
    /// The listener and its connections.
    way: TaskGroup,
}

impl Proxy {
    /// Starts to forward to `endpoint`, as `http://host:port`.
    pub async fn start(endpoint: &str, tasks: &TaskGroup) -> Result<Proxy, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut proxy = Proxy {
            endpoint: format!("http://{}", listener.local_addr()?).into(),
            tasks: tasks.clone(),
            target: endpoint.trim_start_matches("http://").into(),
            way: tasks.child("way"),
        };
        proxy.forward(listener);
        Ok(proxy)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends all connections, and refuses new ones.
    pub async fn cut(&self) -> Result<(), BoxError> {
        self.way.cancel();
        self.way.join().await
    }

    /// Forwards again, from the same port.
    pub async fn restore(&mut self) -> Result<(), BoxError> {
        let listener = TcpListener::bind(self.endpoint.trim_start_matches("http://")).await?;
        self.forward(listener);
        Ok(())
    }

    fn forward(&mut self, listener: TcpListener) {
        self.way = self.tasks.child("way");
        let (way, target) = (self.way.clone(), Arc::clone(&self.target));
        self.way.spawn("proxy", OnError::Log, async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = way.token().cancelled() => return Ok(()),
                    accepted = listener.accept() => accepted,
                };
                let (client, cut, target) = (accepted?.0, way.token().clone(), Arc::clone(&target));
                way.spawn("proxied connection", OnError::Log, async move {
                    tokio::select! {
                        biased;
                        () = cut.cancelled() => Ok(()),
                        copied = copy(client, &target) => copied,
                    }
                });
            }
        });
    }
}

async fn copy(mut client: TcpStream, target: &str) -> Result<(), BoxError> {
    let mut server = TcpStream::connect(target).await?;
    // A connection which ends in any way has ended.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    Ok(())
}
