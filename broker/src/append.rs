//! Append: from the client's stream to an answered commit (journal protocol §5).
//!
//! [`serve_append`] follows one stream. It resolves the journal, proxies if another broker is its primary, and judges the
//! append's preconditions against the journal's published state. Only then is content read, whole, into a bounded buffer
//! ([`content`]), under the journal's flow control. The complete append enters the queue of the journal's replica, which
//! judges it again when its turn comes, commits it in a group ([`group`]) with others, and answers with its place.
//!
//! A client that vanishes or stalls before its commit thus holds nothing but its own buffer.

mod answer;
mod assign;
mod content;
mod failure;
mod grace;
mod group;
mod outage;
mod precondition;
mod proxy;
mod ready;
mod receive;
mod serve;

pub use grace::{GraceOptions, OUTAGE_FREE_BYTES_MIN, OUTAGE_GRACE};
pub use outage::Outages;
pub use serve::{AppendContext, AppendLimits, AppendOptions, serve_append};

pub(crate) use assign::{change_suspension, key_in};
pub(crate) use content::{APPENDS_IN_FLIGHT_BYTES_MAX, Content, ContentSpace};
pub use group::{Admission, Group, GroupFormer, Offer, Place};
pub use precondition::{Known, Terms, Transition, Wants};
