//! Publishes messages: maps, stamps and frames them, and appends them in the background.
//!
//! A message is stamped while its journal's slot is held, so that the clocks of a producer are in order in each journal.

use crate::append_service::{AppendService, Target};
use crate::op::{AppendFuture, OpFuture};
use bytes::Bytes;
use message::mapping::{self, MappingError};
use message::{ClockSource, Flags, Message, MessageError, ProducerId, PublisherCore};
use proto::JournalName;
use proto::protocol::AppendRequest;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a message was not published: nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The message says that it is invalid.
    #[error("validating message: {0}")]
    Validate(MessageError),
    /// There is no journal for it.
    #[error("mapping message: {0}")]
    Mapping(#[from] MappingError),
    /// It cannot be framed.
    #[error("encoding message: {0}")]
    Encode(MessageError),
}

/// Publishes the messages of one producer.
pub struct Publisher {
    core: PublisherCore,
    appends: AppendService,
    /// Follow wall time with each publish, as the clock is this publisher's own.
    own_clock: bool,
    /// Queues of journals which were published to.
    targets: Mutex<HashMap<JournalName, Target>>,
}

impl Publisher {
    /// A publisher of a fresh producer. A clock which is given is shared, and its owner updates it to wall time; without
    /// one, the publisher's own follows the wall time of the client.
    pub fn new(appends: AppendService, clock: Option<Arc<ClockSource>>) -> Publisher {
        let mut random = [0; 6];
        appends.client().options().entropy.fill(&mut random);
        let own_clock = clock.is_none();
        let core = PublisherCore::new(ProducerId::from_random(random), clock.unwrap_or_default());
        Publisher { core, appends, own_clock, targets: Mutex::default() }
    }

    /// Who publishes.
    pub fn producer(&self) -> ProducerId {
        self.core.producer()
    }

    /// The clock which stamps messages.
    pub fn clock(&self) -> &Arc<ClockSource> {
        self.core.clock()
    }

    /// The service which appends.
    pub fn appends(&self) -> &AppendService {
        &self.appends
    }

    /// Publishes a message which is committed by itself. Returns when it is queued; the future says when it is durable.
    /// May be called by many at once.
    pub fn publish_committed<M: Message>(
        &self,
        mapping: impl FnOnce(&M) -> Result<mapping::Target, MappingError>,
        message: M,
    ) -> Result<AppendFuture, PublishError> {
        self.publish(mapping, message, Flags::OUTSIDE_TXN).map(|(future, ..)| future)
    }

    /// Publishes a message as part of the running transaction: readers see it once the transaction's acknowledgement
    /// was appended. Within a consumer, the framework does that.
    pub fn publish_uncommitted<M: Message>(
        &mut self,
        mapping: impl FnOnce(&M) -> Result<mapping::Target, MappingError>,
        message: M,
    ) -> Result<AppendFuture, PublishError> {
        let (future, target, message) = self.publish(mapping, message, Flags::CONTINUE_TXN)?;
        self.core.expect_acknowledgement(&target.journal, target.framing, &message);
        Ok(future)
    }

    /// Ends the running transaction: the acknowledgement of each of its journals, to be appended once all of them are
    /// durable elsewhere, and appended again after a fault.
    pub fn build_ack_intents(&mut self) -> Result<Vec<(JournalName, Bytes)>, MessageError> {
        self.update_clock();
        self.core.build_ack_intents()
    }

    /// Appends an acknowledgement, once `deps` have succeeded.
    pub fn append_ack_intent(
        &self,
        journal: &JournalName,
        intent: &Bytes,
        deps: Vec<OpFuture>,
    ) -> AppendFuture {
        let request = AppendRequest { journal: journal.as_str().to_owned(), ..Default::default() };
        let mut slot = self.appends.start_append(request, deps);
        // An error is the slot's, and is returned by the release.
        let _ = slot.write_all(intent);
        slot.release()
    }

    fn publish<M: Message>(
        &self,
        mapping: impl FnOnce(&M) -> Result<mapping::Target, MappingError>,
        mut message: M,
        flags: Flags,
    ) -> Result<(AppendFuture, mapping::Target, M), PublishError> {
        self.update_clock();
        message.validate().map_err(PublishError::Validate)?;
        let target = mapping(&message)?;
        let mut slot = self.appends.start(self.target(&target.journal), Vec::new());
        slot.write_with(|out| self.core.stamp(&mut message, flags, target.framing, out))
            .map_err(PublishError::Encode)?;
        Ok((slot.release(), target, message))
    }

    fn update_clock(&self) {
        if self.own_clock {
            self.core.clock().update(self.appends.client().options().clock.unix_now());
        }
    }

    fn target(&self, journal: &JournalName) -> Target {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = targets.get(journal) {
            return target.clone();
        }
        let target = self.appends.target(journal.as_str());
        targets.insert(journal.clone(), target.clone());
        target
    }
}
