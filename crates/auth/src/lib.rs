//! Access tokens (journal protocol §13, consumer protocol §1.5): who may do what, to which journals or shards, until when.
//!
//! A token is a JSON web token: [`Claims`] signed with a shared key. Servers check the token of each request with a
//! [`Verifier`], and learn what the request may see and for how long: an [`Access`]. Clients, and servers which ask one
//! another, have an [`Authorizer`] sign what a request needs, a [`Grant`], or send a token that they were given.
//!
//! A server's [`Admission`] does so where requests enter, before their bodies are read. It alone has a clock; below it time comes
//! as an argument, as a duration since the Unix epoch. Nothing here does I/O. Neither keys nor tokens show in errors or when a
//! value is printed for debugging.

mod admission;
mod authorizer;
mod capability;
mod claims;
mod error;
mod expiry;
mod keys;
mod verifier;

pub use admission::Admission;
pub use authorizer::{AUTHORIZATION, Authorizer, Grant};
pub use capability::Capability;
pub use claims::Claims;
pub use error::{AuthError, KeysError, TokenError};
pub use expiry::{Expired, before_expiry, expired};
pub use keys::Keys;
pub use verifier::{Access, Verifier};
