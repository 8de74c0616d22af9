use super::*;

fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
    selector.parse::<LabelSelector>().unwrap().matches(&LabelSet::from_pairs(labels.iter().copied()))
}

#[test]
fn matching_table() {
    let set = [("bar", "1"), ("baz", "2"), ("foo", "x"), ("foo", "y"), ("name", "a/b/c")];
    for selector in [
        "",
        "foo",
        "foo=x",
        "foo=y,baz",
        "foo in (zz,yy,x)",
        "foo=x,foo=zz",
        "!other",
        "foo!=zz",
        "bar in (1,2),baz notin (3,4)",
        "name:prefix=a/b",
        "name:prefix=a/b/c",
        "name:prefix=q,name=a/b/c",
    ] {
        assert!(selects(selector, &set), "{selector}");
    }
    for selector in [
        "other",
        "foo=z",
        "foo=x,other=1",
        "!foo",
        "foo!=x",
        "bar=1,baz=1",
        "name:prefix=b",
        "name:prefix!=a/",
        "!name",
    ] {
        assert!(!selects(selector, &set), "{selector}");
    }
}

#[test]
fn legacy_prefix_becomes_a_name_prefix() {
    let selector: LabelSelector = "prefix=foo/,prefix != foo/bar/".parse().unwrap();
    assert_eq!(selector.rewrite_legacy_prefix().to_string(), "name:prefix=foo/,name:prefix!=foo/bar/");
}

#[test]
fn rules_name_the_side() {
    let bad = LabelSet { labels: vec![Label { name: "x".into(), ..Label::default() }] };
    let include = LabelSelector { include: Some(bad.clone()), exclude: None };
    assert_eq!(
        include.validate().unwrap_err().to_string(),
        "Include.Labels[0].Name: invalid length (1; expected 2 <= length <= 64)"
    );
    let exclude = LabelSelector { include: None, exclude: Some(bad) };
    assert!(exclude.validate().unwrap_err().to_string().starts_with("Exclude.Labels[0].Name: "));
    assert_eq!(
        LabelSelector::include([("prefix", "foo")]).check_legacy_prefix().unwrap_err().to_string(),
        "Selector.Include.Labels[\"prefix\"]: expected trailing '/' (foo)"
    );
}
