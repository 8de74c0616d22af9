use clap::{Args, Parser, Subcommand};

use super::super::print::config_text;
use super::super::{BrokerClientArgs, EtcdArgs, LogArgs, LogLevel};
use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    Serve(Options),
    Journals {
        #[arg(long, env = "RUNTIME_INI_ZONE", default_value = "local")]
        zone: String,
        #[command(flatten)]
        broker: BrokerClientArgs,
        #[command(subcommand)]
        command: JournalCommands,
    },
}

#[derive(Debug, Subcommand)]
enum JournalCommands {
    List {
        #[arg(long)]
        selector: String,
    },
}

#[derive(Debug, Args)]
struct Options {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
    /// Origins.
    #[arg(long = "web.allow-origin", help_heading = "Web")]
    origins: Vec<String>,
    /// Whether something is private.
    #[arg(long = "web.private", help_heading = "Web", env = "RUNTIME_INI_PRIVATE")]
    private: bool,
    /// Known to nobody else.
    #[arg(long = "web.keys", help_heading = "Web", hide_env_values = true)]
    keys: Option<String>,
    /// Set in the environment of every test.
    #[arg(long = "web.home", help_heading = "Web", env = "PATH")]
    path: Option<String>,
}

fn with(text: &str) -> Result<clap::Command, IniError> {
    let mut ini = Ini::parse(PathBuf::from("a/gazette.ini"), text)?;
    let mut command = <Program as clap::CommandFactory>::command();
    ini.preset(command.find_subcommand_mut("serve").unwrap(), "")?;
    ini.preset(command.find_subcommand_mut("journals").unwrap(), "journals")?;
    command.clone().debug_assert();
    Ok(command)
}

fn parse(text: &str, line: &str) -> Program {
    let matches = with(text).unwrap().try_get_matches_from(line.split(' ')).unwrap();
    clap::FromArgMatches::from_arg_matches(&matches).unwrap()
}

fn serve(text: &str, line: &str) -> Options {
    let Commands::Serve(options) = parse(text, line).command else { panic!("{line}") };
    options
}

#[test]
fn flags_win_over_the_file_and_the_file_over_environment_and_defaults() {
    let text = "[Etcd]\nLeaseTTL = 7s\n\n[Web]\nhome = of the file\n; Home = comment\n# another\n";
    let options = serve(text, "program serve");
    assert_eq!((options.etcd.lease.as_secs(), options.path.as_deref()), (7, Some("of the file")));
    let options = serve(text, "program serve --etcd.lease 9s --web.home flag");
    assert_eq!((options.etcd.lease.as_secs(), options.path.as_deref()), (9, Some("flag")));
    let options = serve("", "program serve");
    assert_eq!(options.etcd.lease.as_secs(), 20);
    assert_eq!(options.path.map(Into::into), std::env::var_os("PATH"), "without a file, the environment");
}

#[test]
fn sections_and_keys_have_several_spellings() {
    for text in
        ["[Etcd]\nLeaseTTL=3s", "[etcd]\nlease = 3s", " [ ETCD ] \n\tlease_ttl =3s", "[Etcd]\nLease=\"3s\""]
    {
        assert_eq!(serve(text, "program serve").etcd.lease.as_secs(), 3, "{text}");
    }
    for text in ["[Logging]\nLevel = debug", "[log]\nlevel = DEBUG"] {
        assert_eq!(serve(text, "program serve").log.level, LogLevel::Debug, "{text}");
    }
    let program = parse(
        "[journals]\nZone = a\n[journals.Broker]\nAddress = http://x:1\nSize = 7\nTTL=2s\n[journals.list]\nSelector = s\n\
         [Broker]\nAddress = of another program",
        "program journals list",
    );
    let Commands::Journals { zone, broker, command: JournalCommands::List { selector } } = program.command
    else {
        panic!()
    };
    assert_eq!((zone.as_str(), broker.address.as_str(), selector.as_str()), ("a", "http://x:1", "s"));
    assert_eq!((broker.cache_size, broker.cache_ttl.as_secs()), (7, 2));
}

#[test]
fn repeated_keys_add_up_only_where_options_do() {
    let text =
        "[Web]\nAllowOrigin = a\nAllowOrigin = b\nprivate =\n[Etcd]\nLease = 1s\nLease = 2s\nPrefix =\n";
    let options = serve(text, "program serve");
    assert_eq!((options.origins, options.private), (vec!["a".to_owned(), "b".to_owned()], true));
    assert_eq!((options.etcd.lease.as_secs(), options.etcd.prefix), (2, None));
    let options = serve(text, "program serve --web.allow-origin c");
    assert_eq!(options.origins, ["c"]);
    assert!(!serve("[Web]\nPrivate = false", "program serve").private);
}

#[test]
fn unknown_keys_are_ignored_and_known_ones_noted() {
    let text = "[Nobody]\nX = 1\n[Etcd]\nY = 2\nLease = 2s\n[journals.Etcd]\nLease = 3s\n";
    let mut ini = Ini::parse(PathBuf::from("x"), text).unwrap();
    let mut command = <Program as clap::CommandFactory>::command();
    ini.preset(command.find_subcommand_mut("serve").unwrap(), "").unwrap();
    let unused: Vec<_> = ini.entries.iter().filter(|e| !e.used).map(|e| e.line).collect();
    assert_eq!(unused, [2, 4, 7]);
    let remarks = ini.remarks();
    assert_eq!((remarks.len(), remarks[0].as_str()), (4, "configured by x"));
    assert_eq!(remarks[2], "x:4: no option has the key \"Y\" of section \"Etcd\": it is ignored");
    assert!(Ini::default().remarks().is_empty());
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    for (text, expected) in [
        ("[Etcd", "a/gazette.ini:1: expected [section]"),
        ("\n[]", "a/gazette.ini:2: expected [section]"),
        ("[Etcd]\nlease", "a/gazette.ini:2: expected key = value, found no equals sign"),
        ("[Etcd]\nprefix = \"x", "a/gazette.ini:2: the value of prefix is malformed quoted text"),
        (
            "[Etcd]\nLease = 20",
            "a/gazette.ini:2: invalid value '20' for '--etcd.lease <DURATION>': invalid duration \"20\"",
        ),
        ("[Web]\nPrivate = perhaps", "a/gazette.ini:2: invalid value \"perhaps\" (expected true or false)"),
        (
            "[Logging]\nLevel = loud",
            "a/gazette.ini:2: invalid value 'loud' for '--log.level <LEVEL>' [possible",
        ),
    ] {
        let error = with(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_line_that_is_malformed_is_not_shown_as_it_may_hold_a_secret() {
    for text in ["[Web]\nKeys = \"c2VjcmV0", "[Web]\nKeys = a\nc2VjcmV0"] {
        let error = with(text).unwrap_err().to_string();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn whole_names_of_flags_are_keys_and_need_no_section() {
    for text in ["etcd.lease = 3s", "[Etcd]\netcd.lease = 3s", "etcd.lease = 3s\n[Etcd]\nPrefix = /p"] {
        assert_eq!(serve(text, "program serve").etcd.lease.as_secs(), 3, "{text}");
    }
    assert_eq!(serve("Lease = 3s", "program serve").etcd.lease.as_secs(), 20, "several groups may have it");
    assert_eq!(serve("[Web]\netcd.lease = 3s", "program serve").etcd.lease.as_secs(), 20);
}

#[test]
fn the_first_file_counts() {
    let dir = tempfile::tempdir().unwrap();
    let paths = || ["none/x.ini", "a.ini", "b.ini"].map(|name| dir.path().join(name)).into_iter();
    assert!(Ini::load_first(paths()).unwrap().entries.is_empty());
    std::fs::write(dir.path().join("b.ini"), "[b]\nx = 1").unwrap();
    assert_eq!(Ini::load_first(paths()).unwrap().entries[0].section, "b");
    std::fs::write(dir.path().join("a.ini"), "[a]\nx = 1").unwrap();
    assert_eq!(Ini::load_first(paths()).unwrap().entries[0].section, "a");
    std::fs::remove_file(dir.path().join("a.ini")).unwrap();
    std::fs::create_dir(dir.path().join("a.ini")).unwrap();
    assert!(Ini::load_first(paths()).unwrap_err().to_string().starts_with("reading "));
}

/// What `print-config` prints for this file and command line.
fn printed(text: &str, line: &str) -> String {
    let matches = with(text).unwrap().try_get_matches_from(line.split(' ')).unwrap();
    let command = <Program as clap::CommandFactory>::command();
    config_text(command.find_subcommand("serve").unwrap(), matches.subcommand().unwrap().1, "")
}

#[test]
fn a_configuration_is_printed_with_comments() {
    let text = printed("[Web]\nKeys = secret\n", "program serve --etcd.lease 5s --web.home x");
    for part in [
        "[Logging]\n; Log messages of this level and above\n; Level = warn\n",
        "\n\n[Etcd]\n; Address of etcd: http(s)://host:port or unix:///path.",
        "\n; Address =\n",
        "\nLeaseTTL = 5s\n",
        "\n; TrustedCAFile =\n",
        "\n; Keys = <hidden>\n",
        "\n[Web]\n; Origins\n; AllowOrigin =\n; Whether something is private\n; Private = false\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn what_is_printed_gives_the_same_configuration() {
    let line = "program serve --web.home x --web.allow-origin a --web.allow-origin b --web.private --log.level=debug \
                --etcd.lease 90s --etcd.prefix=\"quoted\" --etcd.address=http://é\tb\\n:1/";
    let once = printed("", line);
    let twice = printed(&once, "program serve");
    assert_eq!(once, twice);
    let options = serve(&once, "program serve");
    assert_eq!(options.etcd.prefix.as_deref(), Some("\"quoted\""));
    assert_eq!(options.etcd.address.as_deref(), Some("http://é\tb\\n:1/"));
    assert!(options.private && options.origins == ["a", "b"]);
}
