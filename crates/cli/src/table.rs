//! Tables: aligned columns under a header, two spaces apart.

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

    /// Prints header and rows.
    pub fn render(&self) -> String {
        let mut widths = vec![0; self.headers.len()];
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["NAME", "RF"]);
        table.row(vec!["a/long/name".into(), "3".into()]);
        table.row(vec!["é".into(), String::new()]);
        assert_eq!(table.render(), "NAME         RF\na/long/name  3\né            <none>\n");
    }
}
