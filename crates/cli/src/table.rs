//! Tables: aligned columns under a header, two spaces apart. On a terminal they are no wider than it.

use std::borrow::Cow;

/// What is between two columns.
const GAP: &str = "  ";
/// Columns of this width or less are never cut.
const CUT_WIDTH_MIN: usize = 8;

/// Rows of text under their headers.
#[derive(Debug, Default)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// What stands in a cell which has no value.
pub const NONE: &str = "<none>";

impl Table {
    /// A table with these headers, in upper case unless they are names of labels.
    pub fn new(headers: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { headers: headers.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell shows that there is no value.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headers.len(), "every row fills every column");
        let fill = |cell: String| if cell.is_empty() { NONE.to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(fill).collect());
    }

    /// Header and rows. Within `columns`, if they are given: the widest columns are then cut, `…` being where something was
    /// left out. Columns are not cut below [`CUT_WIDTH_MIN`], so that the lines of a very wide table still wrap.
    pub fn render(&self, columns: Option<usize>) -> String {
        let mut widths = self.widths();
        if let Some(columns) = columns {
            fit(&mut widths, columns);
        }
        let mut text = String::new();
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let cell = cut(cell, *width);
                line.push_str(&format!("{cell:width$}{GAP}"));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.headers.len()];
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

/// Makes the widest columns narrower, until all of them fit into `columns`.
fn fit(widths: &mut [usize], columns: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let mut widest = widths.iter().copied().max().unwrap_or(0);
    while widths.iter().sum::<usize>() + gaps > columns && widest > CUT_WIDTH_MIN {
        widest -= 1;
        for width in widths.iter_mut() {
            *width = (*width).min(widest);
        }
    }
}

/// A cell of at most `width` characters. Names differ at their ends, so that what is left out is in the middle.
fn cut(cell: &str, width: usize) -> Cow<'_, str> {
    let length = cell.chars().count();
    if length <= width {
        return cell.into();
    }
    let head = width.saturating_sub(1) / 2;
    let tail = width.saturating_sub(1) - head;
    cell.chars().take(head).chain(['…']).chain(cell.chars().skip(length - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["NAME", "RF"]);
        table.row(vec!["a/long/name".into(), "3".into()]);
        table.row(vec!["é".into(), String::new()]);
        let whole = "NAME         RF\na/long/name  3\né            <none>\n";
        assert_eq!(table.render(None), whole);
        assert_eq!(table.render(Some(19)), whole, "it fits");
    }

    #[test]
    fn the_widest_columns_are_cut_to_fit() {
        let mut table = Table::new(["NAME", "RF", "STORES"]);
        table.row(vec!["examples/a/long/name/part-000".into(), "3".into(), "s3://bucket/a/prefix/".into()]);
        table.row(vec!["examples/a/long/name/part-001".into(), "3".into(), String::new()]);
        let text = table.render(Some(40));
        assert_eq!(
            text,
            "NAME               RF  STORES\n\
             examples…part-000  3   s3://buc…/prefix/\n\
             examples…part-001  3   <none>\n"
        );
        for (columns, longest) in [(40, 40), (30, 30), (1, 8 + 2 + 2 + 2 + 8), (1000, 29 + 2 + 2 + 2 + 21)] {
            let lines = table.render(Some(columns));
            assert_eq!(lines.lines().map(|line| line.chars().count()).max(), Some(longest), "{lines}");
        }
    }
}
