//! The beginning of a connection, by which its client must say whether it speaks HTTP/1 or HTTP/2.
//!
//! Either has limits of its own for what comes later: HTTP/1 for the headers of each request, HTTP/2 by pings. Before that,
//! a client that says nothing would keep its connection, and the file that it takes, for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

use crate::Clock;

/// How long a client may take to say what it speaks. (Others give it 7.5 s: journal protocol §14.1.)
const OPENING_MAX: Duration = Duration::from_secs(10);
/// How HTTP/2 begins. Whatever does not begin so is HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Tells whether the client of a stream has begun.
pub(super) struct Opening(Arc<AtomicBool>);

impl Opening {
    /// Watches over a new stream.
    pub(super) fn of<S: AsyncRead>(stream: S) -> (Opening, InspectReader<S, impl FnMut(&[u8])>) {
        let has_begun = Arc::new(AtomicBool::new(false));
        let (noted, mut awaited) = (Arc::clone(&has_begun), PREFACE);
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            if awaited.is_empty() {
                return;
            }
            let common = bytes.len().min(awaited.len());
            awaited = if bytes[..common] == awaited[..common] { &awaited[common..] } else { &[] };
            noted.store(awaited.is_empty(), Ordering::Relaxed);
        });
        (Opening(has_begun), stream)
    }

    /// Ready when it is too late to begin; never if the client has begun by then.
    pub(super) async fn missed(self, clock: Clock) {
        clock.sleep(OPENING_MAX).await;
        if self.0.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }
}
