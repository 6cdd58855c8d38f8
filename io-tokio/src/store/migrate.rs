//! Numbered, checksummed SQL, applied at start. A newer schema, or one whose past was edited, is
//! refused.

use std::fmt::Write;

use bowline_core::time::Wall;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use super::desk::int;

/// One step of a schema. Never edited once released: the next number corrects it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "its schema is version {found}, this program knows {known}: run the newer program that \
         wrote it"
    )]
    Newer { found: usize, known: usize },
    #[error(
        "its schema was made by another {name} than this program's: it is from a build that was \
         never released, or was edited"
    )]
    Changed { name: &'static str },
    #[error("migration {name} failed: {error}")]
    Failed {
        name: &'static str,
        error: rusqlite::Error,
    },
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Brings `db` to the last of `migrations`, whose place in the list is their number less one.
pub(super) fn migrate(
    db: &mut Connection,
    migrations: &[Migration],
    now: Wall,
) -> Result<(), MigrateError> {
    let txn = db.transaction()?;
    txn.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version    INTEGER NOT NULL PRIMARY KEY,
             name       TEXT    NOT NULL,
             sha256     TEXT    NOT NULL,
             applied_at INTEGER NOT NULL
         ) STRICT",
    )?;
    let applied: Vec<String> = txn
        .prepare("SELECT sha256 FROM schema_migrations ORDER BY version")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if applied.len() > migrations.len() {
        return Err(MigrateError::Newer {
            found: applied.len(),
            known: migrations.len(),
        });
    }
    for (index, migration) in migrations.iter().enumerate() {
        let sha256 = checksum(migration.sql);
        if let Some(theirs) = applied.get(index) {
            if *theirs != sha256 {
                return Err(MigrateError::Changed {
                    name: migration.name,
                });
            }
            continue;
        }
        txn.execute_batch(migration.sql)
            .and_then(|()| {
                txn.execute(
                    "INSERT INTO schema_migrations (version, name, sha256, applied_at)
                     VALUES (?1, ?2, ?3, ?4)",
                    params![int(index as u64 + 1), migration.name, sha256, int(now.0)],
                )
            })
            .map_err(|error| MigrateError::Failed {
                name: migration.name,
                error,
            })?;
    }
    txn.commit()?;
    Ok(())
}

/// Over the text with Unix line ends, so that a checkout on another system has the same.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql.replace("\r\n", "\n").as_bytes());
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration {
        name: "0001_one",
        sql: "CREATE TABLE one (x INTEGER) STRICT;",
    };
    const TWO: Migration = Migration {
        name: "0002_two",
        sql: "CREATE TABLE two (x INTEGER) STRICT;",
    };

    #[test]
    fn applies_what_is_missing_and_only_that() -> Result<(), MigrateError> {
        let mut db = Connection::open_in_memory()?;
        migrate(&mut db, &[ONE], Wall(1))?;
        migrate(&mut db, &[ONE, TWO], Wall(2))?;
        migrate(&mut db, &[ONE, TWO], Wall(3))?;
        let at: Vec<i64> = db
            .prepare("SELECT applied_at FROM schema_migrations ORDER BY version")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        assert_eq!(at, [1, 2]);
        db.execute("INSERT INTO two VALUES (1)", [])?;
        Ok(())
    }

    #[test]
    fn a_newer_schema_and_an_edited_past_are_refused() -> Result<(), MigrateError> {
        let mut db = Connection::open_in_memory()?;
        migrate(&mut db, &[ONE, TWO], Wall(1))?;
        assert!(matches!(
            migrate(&mut db, &[ONE], Wall(2)),
            Err(MigrateError::Newer { found: 2, known: 1 })
        ));
        let edited = Migration {
            name: "0001_one",
            sql: "CREATE TABLE one (x TEXT) STRICT;",
        };
        assert!(matches!(
            migrate(&mut db, &[edited, TWO], Wall(2)),
            Err(MigrateError::Changed { name: "0001_one" })
        ));
        Ok(())
    }

    #[test]
    fn a_failing_step_leaves_nothing_behind() -> Result<(), MigrateError> {
        let mut db = Connection::open_in_memory()?;
        let bad = Migration {
            name: "0002_bad",
            sql: "CREATE TABLE two (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
        };
        assert!(matches!(
            migrate(&mut db, &[ONE, bad], Wall(1)),
            Err(MigrateError::Failed {
                name: "0002_bad",
                ..
            })
        ));
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
        assert_eq!(tables, 0);
        Ok(())
    }
}
