//! What the file says next to what was delivered.

use std::fmt;

use crate::story::thousands;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    file: usize,
    delivered: usize,
    promised: bool,
}

impl Table {
    /// Two figures that must be the same.
    pub(crate) fn row(&mut self, what: &str, file: usize, delivered: usize) {
        self.rows.push(Row { what: what.to_owned(), file, delivered, promised: true });
    }

    /// Two figures that the broker does not promise to be the same.
    pub(crate) fn not_promised(&mut self, what: &str, file: usize, delivered: usize) {
        self.rows.push(Row { what: what.to_owned(), file, delivered, promised: false });
    }

    /// Rows whose figures should be the same and are not.
    pub(crate) fn differences(&self) -> usize {
        self.rows.iter().filter(|row| row.promised && row.file != row.delivered).count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<42} {:>13}  {:>17}  ok", "what", "the file says", "Tidings delivered")?;
        writeln!(f, "  {:-<42} {:->13}  {:->17}  ------------", "", "", "")?;
        for row in &self.rows {
            let verdict = match (row.promised, row.file == row.delivered) {
                (true, true) => "ok",
                (true, false) => "DIFFERS",
                (false, _) => "not promised",
            };
            let (file, delivered) = (thousands(row.file), thousands(row.delivered));
            writeln!(f, "  {:<42} {file:>13}  {delivered:>17}  {verdict}", row.what)?;
        }
        Ok(())
    }
}
