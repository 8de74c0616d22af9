use clap::Parser;

use super::*;

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
    got.etcd.refuse_unsupported().unwrap();
    got.broker.refuse_unsupported().unwrap();
}

#[test]
fn defaults_of_clap_and_of_the_types_agree() {
    let got = parse(&[]).unwrap();
    assert_eq!(format!("{:?}", got.log), format!("{:?}", LogArgs::default()));
    assert_eq!(format!("{:?}", got.etcd), format!("{:?}", EtcdArgs::default()));
    assert_eq!(format!("{:?}", got.broker), format!("{:?}", BrokerClientArgs::default()));
}

#[test]
fn unsupported_options_are_refused_by_name() {
    for (args, expected) in [
        (&["--etcd.cert-file=x"][..], "--etcd.cert-file is not supported yet"),
        (
            &["--etcd.address=https://h:1"],
            "--etcd.address: https is not supported yet; expected http:// or unix://",
        ),
        (&["--etcd.lease=20ms"], "--etcd.lease: 20ms is too short; expected 1s or more"),
        (&["--broker.trusted-ca-file=x"], "--broker.trusted-ca-file is not supported yet"),
    ] {
        let got = parse(args).unwrap();
        let refused = got.etcd.refuse_unsupported().and_then(|()| got.broker.refuse_unsupported());
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    let secret = parse(&["--broker.auth-keys=hush", "--broker.auth-token="]).unwrap().broker;
    assert_eq!(secret.auth_keys.as_ref().and_then(Secret::reveal), Some("hush"));
    assert_eq!(secret.auth_token.as_ref().and_then(Secret::reveal), None);
    assert!(!format!("{secret:?}").contains("hush"));
    assert!(parse(&["--etcd.lease=20"]).unwrap_err().contains("invalid duration"));
}
