//! A reader which survives its calls: it calls again, where the last one stopped, whenever a broker ends a call, goes
//! away, or hands the journal over.

use super::retry::{Attempts, Decision, Progress};
use super::{Chunk, ReadError, Reader};
use crate::client::JournalClient;
use crate::outage::Outage;
use proto::protocol::{Fragment, ReadRequest};
use runtime::Instant;

/// Reads a journal over any number of calls.
pub struct RetryReader {
    client: JournalClient,
    /// As it was asked for, with the offset of the current call.
    request: ReadRequest,
    reader: Reader,
    attempts: Attempts,
    outage: Outage,
    /// When to call again.
    resume: Option<Instant>,
}

impl RetryReader {
    /// A reader of `request`. Its first call is made when bytes are asked for.
    pub fn new(client: JournalClient, mut request: ReadRequest) -> RetryReader {
        request.do_not_proxy |= client.reads_directly();
        let reader = client.read(request.clone());
        let (attempts, outage) = (Attempts::new(), Outage::default());
        RetryReader { client, request, reader, attempts, outage, resume: None }
    }

    /// Offset of the next byte; −1 if the write head was requested and is not known yet.
    pub fn offset(&self) -> i64 {
        self.reader.offset()
    }

    /// The journal's end, as a broker last said; zero before.
    pub fn write_head(&self) -> i64 {
        self.reader.write_head()
    }

    /// The fragment of the current content, as a broker last described it.
    pub fn fragment(&self) -> Option<&Fragment> {
        self.reader.fragment()
    }

    /// The request, with the offset of the current call.
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// The client which makes the calls.
    pub fn client(&self) -> &JournalClient {
        &self.client
    }

    /// Ends the current call, and goes on at another offset.
    pub fn seek(&mut self, offset: i64) {
        self.request.offset = offset;
        self.reader = self.client.read(self.request.clone());
        self.resume = None;
        self.attempts.reset();
    }

    /// The next bytes. Waits for them, or for a broker which has them, as long as it takes.
    ///
    /// Cancel safe: a call which is dropped while it waits loses nothing.
    ///
    /// # Errors
    /// Ends: `EndOffset`; `NotYetAvailable` if the request does not block, and a later call tries again; `Suspended`;
    /// `JournalNotFound` after some attempts; `Cancelled` with the client's tasks. And `OffsetJump`, after which reading
    /// goes on.
    pub async fn next(&mut self) -> Result<Chunk, ReadError> {
        loop {
            if let Some(resume) = self.resume {
                self.wait_until(resume).await?;
                self.resume = None;
                self.restart();
            }
            let token = self.client.options().tasks.token().clone();
            let outcome = tokio::select! {
                biased;
                () = token.cancelled() => return Err(ReadError::Cancelled),
                outcome = self.reader.next() => outcome,
            };
            match outcome {
                Ok(chunk) => {
                    self.outage.is_over();
                    return Ok(chunk);
                }
                Err(error) => self.on_error(error)?,
            }
        }
    }

    fn on_error(&mut self, error: ReadError) -> Result<(), ReadError> {
        let now = self.client.options().clock.now();
        let progress = Progress {
            is_further: self.reader.offset() != self.request.offset,
            stood: self.reader.began().map(|began| now.saturating_duration_since(began)),
        };
        let decision = self.attempts.on_error(&error, self.request.block, progress);
        if let ReadError::UnsupportedUrl { .. } | ReadError::Fragment { .. } = error {
            // The broker can fetch what this client cannot.
            self.request.do_not_proxy = false;
        }
        match decision {
            Decision::Return => {
                if let ReadError::OffsetJump { .. } = error {
                    return Err(error);
                }
                // A caller who asks again gets a new call.
                self.resume = Some(now);
                self.attempts.reset();
                return Err(error);
            }
            Decision::Again => self.resume = Some(now),
            Decision::Later(wait) => {
                let (journal, offset) = (&self.request.journal, self.reader.offset());
                self.outage.failed(&error, now, |failing| {
                    tracing::warn!(journal, offset, %error, %failing, "read failed (will retry)");
                });
                self.resume = Some(now + wait);
            }
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.request.offset = self.reader.offset();
        self.reader = self.client.read(self.request.clone());
    }

    async fn wait_until(&self, resume: Instant) -> Result<(), ReadError> {
        tokio::select! {
            biased;
            () = self.client.options().tasks.token().cancelled() => Err(ReadError::Cancelled),
            () = self.client.options().clock.sleep_until(resume) => Ok(()),
        }
    }
}
