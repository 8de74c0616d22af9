//! What the options of a program's command line say that its requests are sent as.

use auth::{Authorizer, KeysError};
use runtime::config::{BrokerClientArgs, ConfigError, ConsumerClientArgs, Secret};

/// What requests to brokers are sent as.
///
/// # Errors
/// If keys or the token are malformed. The error does not show them.
pub fn authorizer_of(args: &BrokerClientArgs) -> Result<Authorizer, ConfigError> {
    authorizer(("broker.auth-keys", args.auth_keys.as_ref()), ("broker.auth-token", args.auth_token.as_ref()))
}

/// What requests to consumers are sent as.
///
/// # Errors
/// As [`authorizer_of`].
pub fn consumer_authorizer_of(args: &ConsumerClientArgs) -> Result<Authorizer, ConfigError> {
    authorizer(
        ("consumer.auth-keys", args.auth_keys.as_ref()),
        ("consumer.auth-token", args.auth_token.as_ref()),
    )
}

/// Keys sign; without them, the token is sent. Each has the name of its option.
fn authorizer(
    keys: (&'static str, Option<&Secret>),
    token: (&'static str, Option<&Secret>),
) -> Result<Authorizer, ConfigError> {
    let (given_keys, given_token) = (keys.1.and_then(Secret::reveal), token.1.and_then(Secret::reveal));
    let option = if given_keys.is_some() { keys.0 } else { token.0 };
    let invalid = |e: KeysError| ConfigError::Invalid { option, problem: e.to_string() };
    Authorizer::from_options(given_keys, given_token).map_err(invalid)
}
