//! Numbers that make no sense end a program at once, and the error says which option, which value, and what was expected.

use std::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");
const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
const CLUSTER_DEMO: &str = env!("CARGO_BIN_EXE_cluster-demo");
const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const TIERING: &str = env!("CARGO_BIN_EXE_tiering");

#[test]
fn numbers_out_of_bounds_are_told_of_them() {
    for (program, line, bounds) in [
        (BENCH, "--rounds=0", "0 is not in 1..=1000"),
        (BENCH, "--duration=0s", "0s is not 1ms or more"),
        (BENCH, "--duration=-1s", "invalid duration"),
        (BENCH, "--messages=18446744073709551615", "is not in 1..=10000000"),
        (BENCH, "shards --count=0", "0 is not in 1..=100000"),
        (BENCH, "journals --count=9", "9 is not in 10..=100000"),
        (BENCH, "historical --fragments=9999999999", "is not in 1..=64"),
        (BENCH, "historical --rounds=0", "0 is not in 1..=1000"),
        (BENCH, "failover --rounds=0", "0 is not in 1..=1000"),
        (BENCH, "failover --rounds=NaN", "invalid digit"),
        (CHAOS, "--rounds=0", "0 is not in 1..=4294967295"),
        (CHAOS, "--replication=-3", "-3 is not in 1..=4"),
        (CHAOS, "--hot-standbys=4000000000", "is not in 0..=2"),
        (CHAOS, "--lease=2562047h", "is not between 1s and 1h0m0s"),
        (CHAOS, "--partition=2562047h", "is not 1h0m0s or less"),
        (CHAOS, "--disk-mib=4294967295", "is not in 0..=1048576"),
        (CLUSTER_DEMO, "--chunkers=9223372036854775807", "is not in 1..=64"),
        (CLUSTER_DEMO, "--replication=0", "0 is not in 1..=4"),
        (CLUSTER_DEMO, "--lease=0s", "0s is not between 1s and 1h0m0s"),
        (DEMO, "--workers=0", "0 is not in 1..=1024"),
        (DEMO, "--streams=18446744073709551615", "is not in 1..=1000000"),
        (DEMO, "--timeout=18446744073709551615", "is not in 1..=86400"),
        (TIERING, "--mib=17592186044416", "is not in 1..=1048576"),
        (TIERING, "--journals=18446744073709551615", "is not in 1..=1000"),
        (TIERING, "--fragment-mib=0", "0 is not in 1..=16384"),
    ] {
        let (_, option) = line.rsplit_once("--").unwrap();
        let (name, value) = option.split_once('=').unwrap();
        let output = Command::new(program).args(line.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program} {line}: {said}");
        assert!(
            said.contains(&format!("invalid value '{value}' for '--{name} <")),
            "{program} {line}: {said}"
        );
        assert!(said.contains(bounds), "{program} {line}: {said}");
    }
}
