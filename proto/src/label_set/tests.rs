use super::*;

fn set(pairs: &[(&str, &str)]) -> LabelSet {
    LabelSet::from_pairs(pairs.iter().copied())
}

/// Labels in the given order, not sorted.
fn raw(pairs: &[(&str, &str)]) -> LabelSet {
    let labels = pairs.iter().map(|(n, v)| Label { name: (*n).into(), value: (*v).into(), prefix: false });
    LabelSet { labels: labels.collect() }
}

#[test]
fn rules_and_their_texts() {
    assert!(set(&[("aa", "1"), ("aa", "2"), ("bb", "")]).validate().is_ok());
    let long = "x".repeat(1025);
    for (labels, text) in [
        (raw(&[("a", "1")]), "Labels[0].Name: invalid length (1; expected 2 <= length <= 64)"),
        (raw(&[("a=", "1")]), "Labels[0].Name: not a valid token (a=)"),
        (raw(&[("aa", "1"), ("bb", "1 2")]), "Labels[1].Value: not a valid token (1 2)"),
        (raw(&[("aa", &long)]), "Labels[0].Value: invalid length (1025; expected 0 <= length <= 1024)"),
        (
            raw(&[("bb", "1"), ("aa", "1")]),
            "Labels not in unique, sorted order (index 1; label name aa <= bb)",
        ),
        (
            raw(&[("aa", "2"), ("aa", "1")]),
            "Labels not in unique, sorted order (index 1; label aa value 1 <= 2)",
        ),
        (
            raw(&[("aa", "1"), ("aa", "1")]),
            "Labels not in unique, sorted order (index 1; label aa value 1 <= 1)",
        ),
        (raw(&[("aa", ""), ("aa", "1")]), "Label has empty & non-empty values (index 1; label aa value 1)"),
    ] {
        assert_eq!(labels.validate().unwrap_err().to_string(), text);
    }
    let flagged = LabelSet { labels: vec![Label { name: "aa".into(), value: "1".into(), prefix: true }] };
    assert_eq!(
        flagged.validate().unwrap_err().to_string(),
        "Labels[0]: Prefix may not be set outside of a LabelSelector"
    );
    assert!(flagged.check(true).is_ok());
}

#[test]
fn single_value_labels_refuse_a_second_value() {
    let labels = set(&[("content-type", "text/csv"), ("content-type", "text/json")]);
    assert_eq!(
        labels.check_single_values().unwrap_err().to_string(),
        "expected single-value Label has multiple values (index 1; label content-type value text/json)"
    );
    assert!(set(&[("app.gazette.dev/tag", "a"), ("app.gazette.dev/tag", "b")]).check_single_values().is_ok());
}

#[test]
fn building_and_lookup() {
    let mut labels = set(&[("bb", "2"), ("aa", "1"), ("bb", "1"), ("aa", "1")]);
    assert_eq!(labels, raw(&[("aa", "1"), ("bb", "1"), ("bb", "2")]));
    assert_eq!(labels.value_of("bb"), Some("1"));
    assert_eq!(labels.value_of("cc"), None);
    assert_eq!(labels.values_of("bb").collect::<Vec<_>>(), ["1", "2"]);
    labels.set("bb", "0");
    assert_eq!(labels, raw(&[("aa", "1"), ("bb", "0")]));
    labels.remove("aa");
    assert_eq!(labels.clone().with("aa", "9"), raw(&[("aa", "9"), ("bb", "0")]));
}

#[test]
fn algebra_works_on_whole_names() {
    let left = set(&[("aa", "1"), ("bb", "1"), ("bb", "2"), ("cc", "3")]);
    let right = set(&[("bb", "2"), ("bb", "3"), ("cc", "3"), ("dd", "4")]);
    assert_eq!(left.union(&right), set(&[("aa", "1"), ("bb", "1"), ("bb", "2"), ("cc", "3"), ("dd", "4")]));
    assert_eq!(left.subtract(&right), set(&[("aa", "1"), ("bb", "1"), ("bb", "2")]));
    assert_eq!(left.intersect(&right), set(&[("cc", "3")]));
    assert_eq!(left.union(&EMPTY), left);
    assert_eq!(left.subtract(&left), EMPTY);
}
