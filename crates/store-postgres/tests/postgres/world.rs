//! A server with the tables of tests, and stores over it.

use consumer::Store;
pub use consumer::testing::{checkpoint, commit, number_of};
use proto::consumer::Checkpoint;
use runtime::TaskGroup;
use store_postgres::{PostgresOptions, PostgresStore, tokio_postgres};
use store_servers::PostgresServer;

pub const SHARD: &str = "/a/group/items/shard";

pub const TABLES: &str = "
    CREATE TABLE gazette_checkpoints (
      shard_fqn TEXT PRIMARY KEY NOT NULL, fence INTEGER NOT NULL, checkpoint BYTEA NOT NULL);
    CREATE TABLE counts (key TEXT PRIMARY KEY, count BIGINT NOT NULL);";

pub struct World {
    pub server: PostgresServer,
    pub tasks: TaskGroup,
    /// Besides the stores.
    pub sql: tokio_postgres::Client,
}

impl World {
    pub async fn new() -> World {
        World::over(PostgresServer::start().unwrap()).await
    }

    pub async fn over(server: PostgresServer) -> World {
        let sql = session(&server).await;
        sql.batch_execute(TABLES).await.unwrap();
        World { server, tasks: TaskGroup::new("test"), sql }
    }

    /// How the server is reached.
    pub fn options(&self) -> PostgresOptions {
        options(&self.server)
    }

    /// After the server was started again.
    pub async fn reconnect(&mut self) {
        self.sql = session(&self.server).await;
    }

    /// A store, and the number of the checkpoint that it restores.
    pub async fn store(&self) -> (PostgresStore, i64) {
        self.store_with(|_| {}).await
    }

    pub async fn store_with(&self, adjust: impl FnOnce(&mut PostgresOptions)) -> (PostgresStore, i64) {
        let mut options = self.options();
        adjust(&mut options);
        let mut store = PostgresStore::open(SHARD, options, &self.tasks).await.unwrap();
        let restored = store.restore_checkpoint().await.unwrap();
        (store, number_of(&restored))
    }

    /// The fence and the number of the checkpoint, as they are committed.
    pub async fn row(&self) -> (i32, i64) {
        use prost::Message;
        let sql = "SELECT fence, checkpoint FROM gazette_checkpoints WHERE shard_fqn = $1";
        let row = self.sql.query_one(sql, &[&SHARD]).await.unwrap();
        (row.get(0), number_of(&Checkpoint::decode(row.get::<_, &[u8]>(1)).unwrap()))
    }

    /// The committed count of a key.
    pub async fn count(&self, key: &str) -> Option<i64> {
        let row = self.sql.query_opt("SELECT count FROM counts WHERE key = $1", &[&key]).await.unwrap();
        row.map(|row| row.get(0))
    }

    /// Waits until a session of a store is as `condition` says of its row in `pg_stat_activity`.
    pub async fn until(&self, condition: &str) {
        let sql =
            format!("SELECT 1 FROM pg_stat_activity WHERE application_name = 'courant' AND {condition}");
        while self.sql.query(&sql, &[]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

pub fn options(server: &PostgresServer) -> PostgresOptions {
    PostgresOptions::parse(&server.connection()).unwrap()
}

/// A session besides those of stores.
async fn session(server: &PostgresServer) -> tokio_postgres::Client {
    let (client, session) = options(server).config.connect(tokio_postgres::NoTls).await.unwrap();
    TaskGroup::new("session").spawn("session", runtime::OnError::Log, async move {
        drop(session.await); // The server may end before it.
        Ok(())
    });
    client
}

pub const ADD: &str =
    "INSERT INTO counts VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET count = counts.count + 1";

/// The whole text of an error.
pub fn text(error: &(dyn std::error::Error + 'static)) -> String {
    runtime::grpc::chain_text(error)
}
