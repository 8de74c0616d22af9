//! Random SQL, for transactions which use what SQLite has: rows of all sizes, indices, savepoints, many tables.

use runtime::Entropy;

/// Makes up the statements of transactions.
pub struct Script {
    entropy: Entropy,
    schema: Vec<&'static str>,
    /// Largest value which is written, in bytes.
    value_bytes_max: u64,
}

impl Script {
    /// Over tables `t0` to `t2` of each schema.
    pub fn new(seed: u64, schema: &[&'static str], value_bytes_max: u64) -> Script {
        Script { entropy: Entropy::seeded(seed), schema: schema.to_vec(), value_bytes_max }
    }

    /// Creates the tables, if they are not there.
    pub fn tables(schema: &str) -> String {
        (0..3).fold(String::new(), |sql, number| {
            sql + &format!(
                "CREATE TABLE IF NOT EXISTS {schema}.t{number} (id INTEGER PRIMARY KEY, k INTEGER, v BLOB);"
            )
        })
    }

    /// Statements of one transaction, each for itself.
    pub fn transaction(&mut self) -> Vec<String> {
        let count = 1 + self.entropy.below(6);
        let mut statements: Vec<String> = (0..count).map(|_| self.statement()).collect();
        if self.entropy.below(4) == 0 {
            let at = usize::try_from(self.entropy.below(count)).unwrap();
            statements.insert(at, "SAVEPOINT s".into());
            let undone = self.entropy.below(2) == 0;
            statements.extend(undone.then(|| "ROLLBACK TO s".into()));
            statements.push("RELEASE s".into());
        }
        statements
    }

    fn statement(&mut self) -> String {
        let schema = self.schema[usize::try_from(self.entropy.below(self.schema.len() as u64)).unwrap()];
        let (number, key) = (self.entropy.below(3), self.entropy.below(50));
        let bytes = match self.entropy.below(8) {
            0 => self.entropy.below(self.value_bytes_max + 1),
            _ => self.entropy.below(self.value_bytes_max / 20 + 1),
        };
        // Not random to SQLite, so that another database does the same.
        let value = format!("CAST(replace(hex(zeroblob({bytes})), '00', char({})) AS BLOB)", 33 + key);
        match self.entropy.below(12) {
            0..=4 => format!("INSERT INTO {schema}.t{number} (k, v) VALUES ({key}, {value})"),
            5 => format!(
                "INSERT INTO {schema}.t{number} (k, v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                 LIMIT {key}) SELECT i * 7 % 50, {value} FROM n"
            ),
            6 | 7 => format!("UPDATE {schema}.t{number} SET v = {value} WHERE k = {key}"),
            8 => format!("UPDATE {schema}.t{number} SET k = (k + {key}) % 50"),
            9 => format!("DELETE FROM {schema}.t{number} WHERE k BETWEEN {key} AND {key} + 20"),
            10 => format!("CREATE INDEX IF NOT EXISTS {schema}.i{number} ON t{number} (k, v)"),
            _ => format!("DROP INDEX IF EXISTS {schema}.i{number}"),
        }
    }
}
