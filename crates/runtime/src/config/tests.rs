use clap::Parser;

use super::*;
use crate::tls::{ClientTlsFiles, IdentityFiles};

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    debug: DebugArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    broker: BrokerClientArgs,
}

fn parse(args: &[&str]) -> Result<Program, String> {
    let args = std::iter::once("program").chain(args.iter().copied());
    Program::try_parse_from(args).map_err(|e| e.to_string())
}

#[test]
fn groups_share_one_command_line() {
    let got = parse(&[
        "--log.level=DEBUG",
        "--log.format",
        "json",
        "--etcd.address=unix:///run/etcd",
        "--etcd.lease",
        "1m30s",
        "--broker.cache.ttl=500ms",
        "--debug.private",
    ])
    .unwrap();
    assert_eq!((got.log.level, got.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(got.etcd.address(), Some("unix:///run/etcd"));
    assert_eq!(got.etcd.lease, Duration::from_secs(90));
    assert_eq!(got.broker.cache_ttl, Duration::from_millis(500));
    assert_eq!(got.broker.address, "http://localhost:8080");
    assert!(got.debug.private && got.debug.port.is_none());
}

#[test]
fn defaults_of_clap_and_of_the_types_agree() {
    let got = parse(&[]).unwrap();
    assert_eq!(format!("{:?}", got.log), format!("{:?}", LogArgs::default()));
    assert_eq!(format!("{:?}", got.etcd), format!("{:?}", EtcdArgs::default()));
    assert_eq!(format!("{:?}", got.broker), format!("{:?}", BrokerClientArgs::default()));
}

#[test]
fn secrets_are_not_shown_and_a_lease_has_bounds() {
    for lease in ["20ms", "0s", "25h"] {
        let error = parse(&[&format!("--etcd.lease={lease}")]).unwrap_err();
        let named = format!("invalid value '{lease}' for '--etcd.lease <DURATION>': ");
        assert!(error.contains(&named) && error.contains("is not between 1s and 24h0m0s"), "{error}");
    }
    let secret = parse(&["--broker.auth-keys=hush", "--broker.auth-token="]).unwrap().broker;
    assert_eq!(secret.auth_keys.as_ref().and_then(Secret::reveal), Some("hush"));
    assert_eq!(secret.auth_token.as_ref().and_then(Secret::reveal), None);
    assert!(!format!("{secret:?}").contains("hush"));
    assert!(parse(&["--etcd.lease=20"]).unwrap_err().contains("invalid duration"));
}

#[test]
fn an_empty_file_root_is_none() {
    let root = |args: &[&str]| parse(args).map(|parsed| parsed.broker.file_root());
    assert_eq!(root(&["--broker.file-root="]), Ok(None)); // As of an empty variable.
    assert_eq!(root(&["--broker.file-root=/srv"]), Ok(Some("/srv".into())));
}

#[test]
fn a_certificate_needs_its_key_and_an_authority_of_clients_a_certificate() {
    for (args, missing) in [
        (&[][..], None),
        (&["--etcd.trusted-ca-file=ca"], None),
        (&["--etcd.cert-file=c", "--etcd.cert-key-file=k"], None),
        (
            &["--etcd.cert-file=c"],
            Some("--etcd.cert-key-file: is missing; expected a file beside --etcd.cert-file"),
        ),
        (
            &["--etcd.cert-key-file=k", "--etcd.trusted-ca-file=ca"],
            Some("--etcd.cert-file: is missing; expected a file beside --etcd.cert-key-file"),
        ),
        // As of an empty variable.
        (
            &["--etcd.cert-file=c", "--etcd.cert-key-file="],
            Some("--etcd.cert-key-file: is missing; expected a file beside --etcd.cert-file"),
        ),
    ] {
        let got = parse(args).unwrap().etcd.tls.options().client().map_err(|error| error.to_string());
        assert_eq!(got.as_ref().err().map(String::as_str), missing, "{args:?}");
    }
    let got = parse(&["--broker.cert-file=c", "--broker.cert-key-file=k", "--broker.trusted-ca-file=ca"]);
    let files = got.unwrap().broker.tls.options().client().unwrap();
    let identity = IdentityFiles { cert: "c".into(), key: "k".into() };
    assert_eq!(files, ClientTlsFiles { identity: Some(identity), ca: Some("ca".into()) });

    let open = parse(&["--etcd.trusted-ca-file=ca"]).unwrap().etcd.tls.options().server();
    assert_eq!(
        open.unwrap_err().to_string(),
        "--etcd.cert-file: is missing; expected a file beside --etcd.trusted-ca-file"
    );
}
