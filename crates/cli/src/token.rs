//! `courant token`: makes an access token, for programs which are not to have the keys.

use std::time::Duration;

use auth::{Capability, Claims, Keys};
use runtime::config::{Secret, duration_within};
use runtime::{BoxError, Clock};

use crate::session::parse_selector;

/// Times in a token are whole seconds.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Options of `courant token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// Keys in base64, separated by commas or white space: those of the brokers or of the consumer that the token is for.
    /// The first signs.
    #[arg(long, env = "BROKER_AUTH_KEYS", value_name = "KEYS", hide_env_values = true)]
    auth_keys: Secret,
    /// What the token allows: LIST, APPLY, READ, APPEND, REPLICATE, ALL, or the number of an application's own bit.
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', required = true, value_parser = parse_capability)]
    allow: Vec<Capability>,
    /// Which journals or shards it reaches, such as `name:prefix=examples/` or `id=shard-000`. [default: all]
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    selector: String,
    /// How long it is valid.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration_within(LIFETIME_MIN..))]
    lifetime: Duration,
    /// Whom the token is for (claim sub), for the record.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
}

/// Prints the token.
pub fn run(args: &TokenArgs) -> Result<(), BoxError> {
    let token = token(args, Clock::system().unix_now())?;
    Ok(crate::output::print(&format!("{token}\n"))?)
}

fn token(args: &TokenArgs, now: Duration) -> Result<String, BoxError> {
    let keys = Keys::parse(args.auth_keys.reveal().unwrap_or_default());
    let keys = keys.map_err(|error| format!("--auth-keys: {error}"))?;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Ok(keys.sign(&Claims {
        capability: args.allow.iter().fold(Capability::NONE, |all, one| all | *one),
        selector: parse_selector(&args.selector)?,
        expires: seconds(now.saturating_add(args.lifetime)),
        issued: Some(seconds(now)),
        subject: args.subject.clone().map(Into::into),
        ..Claims::default()
    }))
}

fn parse_capability(text: &str) -> Result<Capability, String> {
    let bits = || text.parse().ok().map(Capability::from_bits);
    Capability::named(text)
        .or_else(bits)
        .ok_or_else(|| "expected LIST, APPLY, READ, APPEND, REPLICATE, ALL or a number".to_owned())
}

#[cfg(test)]
mod tests {
    use auth::{AUTHORIZATION, Verifier};
    use clap::Parser;
    use proto::protocol::LabelSelector;
    use tonic::metadata::MetadataMap;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn parse(args: &[&str]) -> Result<TokenArgs, String> {
        let args = ["token", "--auth-keys=c2VjcmV0"].iter().chain(args);
        Program::try_parse_from(args).map(|program| program.args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_says_what_was_asked_for() {
        let now = Duration::from_secs(1_700_000_000);
        let args = parse(&["--allow=read,LIST", "-l", "name:prefix=a/", "--lifetime=2h"]).unwrap();
        let mut metadata = MetadataMap::new();
        let header = format!("Bearer {}", token(&args, now).unwrap());
        metadata.insert(AUTHORIZATION, header.parse().unwrap());
        let verifier = Verifier::new(Some(Keys::parse("b3RoZXI= c2VjcmV0").unwrap()));
        let access = verifier.verify(metadata.as_ref(), Capability::READ | Capability::LIST, now).unwrap();
        assert_eq!(access.selector, "name:prefix=a/".parse::<LabelSelector>().unwrap());
        assert_eq!(access.expires, Some(now + Duration::from_secs(7200)));
        assert!(verifier.verify(metadata.as_ref(), Capability::APPEND, now).is_err());
    }

    #[test]
    fn what_makes_no_token_is_refused() {
        assert!(parse(&[]).unwrap_err().contains("--allow"));
        assert!(parse(&["--allow=WRITE"]).unwrap_err().contains("expected LIST"));
        let expired = parse(&["--allow=READ", "--lifetime=0s"]).unwrap_err();
        assert!(
            expired.contains("invalid value '0s' for '--lifetime <DURATION>': 0s is not 1s or more"),
            "{expired}"
        );
        let args = parse(&["--allow=65536", "-l", "name in ("]).unwrap();
        assert!(token(&args, Duration::ZERO).unwrap_err().to_string().starts_with("--selector: "));
        assert!(!format!("{args:?}").contains("c2VjcmV0"));
    }
}
