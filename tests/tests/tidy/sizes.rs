//! Files hold at most 500 lines without their tests, functions at most 70 lines of code.

use syn::spanned::Spanned;
use syn::visit::Visit;

use super::{assert_none, product_files};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// True of items that only tests compile.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        syn::Meta::Path(path) => path.segments.last().is_some_and(|segment| segment.ident == "test"),
        syn::Meta::NameValue(_) => false,
    })
}

/// Lines that hold code: neither blank nor comment alone.
fn code_lines(lines: &[&str]) -> usize {
    lines.iter().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count()
}

struct Functions<'a> {
    path: &'a str,
    lines: Vec<&'a str>,
    findings: Vec<String>,
}

impl Functions<'_> {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let (first, last) = (block.span().start().line, block.span().end().line);
        // The braces' own lines do not count.
        let body = self.lines.get(first..last.saturating_sub(1)).unwrap_or_default();
        let count = code_lines(body);
        if count > FUNCTION_LINES_MAX {
            self.findings.push(format!("{}:{first}: fn {name} has {count} lines of code", self.path));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            self.check(&item.sig.ident, &item.block);
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// Line ranges (1-based, inclusive) of test-only modules.
fn test_lines(file: &syn::File) -> Vec<(usize, usize)> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if is_test_only(&module.attrs) => {
            Some((module.span().start().line, module.span().end().line))
        }
        _ => None,
    });
    modules.collect()
}

#[test]
fn files_hold_at_most_500_lines_without_tests() {
    let mut findings = Vec::new();
    for (path, text) in product_files() {
        let file = syn::parse_file(&text).unwrap_or_else(|err| panic!("{path}: {err}"));
        let tests = test_lines(&file);
        let lines = (1..=text.lines().count())
            .filter(|line| !tests.iter().any(|(first, last)| (first..=last).contains(&line)))
            .count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{path}: {lines} lines"));
        }
    }
    assert_none("a file holds at most 500 lines without tests", findings);
}

#[test]
fn functions_hold_at_most_70_lines_of_code() {
    let mut findings = Vec::new();
    for (path, text) in product_files() {
        let file = syn::parse_file(&text).unwrap_or_else(|err| panic!("{path}: {err}"));
        let mut functions = Functions { path: &path, lines: text.lines().collect(), findings: Vec::new() };
        functions.visit_file(&file);
        findings.append(&mut functions.findings);
    }
    assert_none("a function holds at most 70 lines of code", findings);
}
