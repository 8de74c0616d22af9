use super::*;
use proptest::prelude::*;

/// Parses and prints again.
fn canonical(text: &str) -> String {
    match text.parse::<LabelSelector>() {
        Ok(selector) => selector.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn grammar_table() {
    for (text, printed) in [
        ("", ""),
        ("foo=bar", "foo=bar"),
        ("foo = bar", "foo=bar"),
        ("foo == bar", "foo=bar"),
        ("foo==bar", "foo=bar"),
        ("foo===bar", "foo===bar"),
        ("foo!==bar", "foo!==bar"),
        ("foo=", "foo"),
        ("foo = , bar", "bar,foo"),
        ("foo != bar", "foo!=bar"),
        ("foo !=", "!foo"),
        ("foo", "foo"),
        (" foo ,", "foo"),
        ("!foo", "!foo"),
        (" !foo, ! bar", "!bar,!foo"),
        ("foo in (one, two)", "foo in (one,two)"),
        ("foo in (one,)", "foo=one"),
        ("foo in(a)", "foo=a"),
        ("foo not in (b, a)", "foo notin (a,b)"),
        ("foo notin (a)", "foo!=a"),
        ("in in (in)", "in=in"),
        ("name:prefix = a/b/", "name:prefix=a/b/"),
        ("name:prefix in (a, b), name = c", "name=c,name:prefix in (a,b)"),
        ("name:prefix", "name:prefix"),
        ("b2=x=y%z, a1, !c3, d4 != e5", "a1,b2=x=y%z,!c3,d4!=e5"),
        (
            "topic in (topic/one, topic/two), prefix=/my/journal/prefix",
            "prefix=/my/journal/prefix,topic in (topic/one,topic/two)",
        ),
    ] {
        assert_eq!(canonical(text), printed, "{text}");
    }
}

#[test]
fn errors_quote_the_rest() {
    for (text, error) in [
        ("f", "could not match \"f\" to a label selector expression"),
        ("foo=bar baz", "could not match \"foo=bar baz\" to a label selector expression"),
        ("ok, foo  = bar", "could not match \" foo  = bar\" to a label selector expression"),
        ("foo in ()", "could not match \"foo in ()\" to a label selector expression"),
        ("foo in (a", "could not match \"foo in (a\" to a label selector expression"),
        (
            "foo in (a,,b)",
            "parsing \"foo in (a,,b)\": could not match \",b\" to a label selector set expression",
        ),
        ("foo=a,foo=a", "Include: Labels not in unique, sorted order (index 1; label foo value a <= a)"),
        ("foo,foo=a", "Include: Label has empty & non-empty values (index 1; label foo value a)"),
    ] {
        assert_eq!(canonical(text), format!("error: {error}"), "{text}");
    }
}

fn selectors() -> impl Strategy<Value = LabelSelector> {
    let label = ("[a-c][a-c世]{1,2}", "[ab=/%.]{1,3}", any::<bool>());
    let set = proptest::collection::vec(label, 0..8).prop_map(|labels| {
        let mut labels: Vec<Label> =
            labels.into_iter().map(|(name, value, prefix)| Label { name, value, prefix }).collect();
        labels.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
        labels.dedup_by(|a, b| a.name == b.name && a.value == b.value);
        LabelSet { labels }
    });
    let empty =
        ("[d-f]{2}", any::<bool>()).prop_map(|(name, prefix)| Label { name, value: String::new(), prefix });
    (set.clone(), set, proptest::option::of(empty)).prop_map(|(mut include, exclude, empty)| {
        include.labels.extend(empty);
        LabelSelector { include: Some(include), exclude: Some(exclude) }
    })
}

proptest! {
    #[test]
    fn printed_selectors_parse_back(selector in selectors()) {
        let text = selector.to_string();
        prop_assert_eq!(text.parse::<LabelSelector>(), Ok(selector));
    }

    #[test]
    fn any_text_parses_or_errs(text in "[ab =!,:()inotprefx%世]{0,40}") {
        if let Ok(selector) = text.parse::<LabelSelector>() {
            prop_assert_eq!(selector.to_string().parse::<LabelSelector>(), Ok(selector));
        }
    }
}
