//! Mutants: changes of the code for the worse, each kept as a patch that names what has to find it:
//! an oracle where core is changed, a scenario where a shell is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// So many seeds may be needed to find one.
pub const SEEDS_MOST: u64 = 500;
/// A mutant is a slip, not a rewrite.
pub const CHANGED_LINES_MOST: usize = 5;

/// `oracle: NAME` or `scenario: NAME`, what the change does in words, then a patch that `git apply`
/// takes.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub name: String,
    /// An oracle, or a scenario.
    pub found_by: String,
    pub why: String,
    pub patch: PathBuf,
    /// Added or removed, whichever are more.
    pub changed_lines: usize,
    /// Files that it changes, from the root.
    pub files: Vec<PathBuf>,
}

/// Where a mutant was found by the oracle that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    pub name: String,
    pub oracle: String,
    pub seed: u64,
}

/// The patches of core in `folder`, by name.
///
/// # Errors
/// If one cannot be read, or is not a mutant.
pub fn of_core(folder: &Path) -> anyhow::Result<Vec<Mutant>> {
    all(folder, "oracle: ")
}

/// The patches of shells in `folder`, by name.
///
/// # Errors
/// If one cannot be read, or is not a mutant.
pub fn of_shells(folder: &Path) -> anyhow::Result<Vec<Mutant>> {
    all(folder, "scenario: ")
}

fn all(folder: &Path, keyword: &str) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            mutants.push(read(path, keyword)?);
        }
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

fn read(patch: PathBuf, keyword: &str) -> anyhow::Result<Mutant> {
    let text =
        fs::read_to_string(&patch).with_context(|| format!("cannot read {}", patch.display()))?;
    let name = patch
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let first = text.lines().next();
    let Some(found_by) = first.and_then(|it| it.strip_prefix(keyword)) else {
        bail!("{name}: the first line has to be `{keyword}NAME`");
    };
    let why: Vec<&str> = text
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("--- "))
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(!why.is_empty(), "{name}: says nothing of what it does");
    let count = |sign: char, head: &str| {
        text.lines()
            .filter(|line| line.starts_with(sign) && !line.starts_with(head))
            .count()
    };
    let files = text
        .lines()
        .filter_map(|line| line.strip_prefix("+++ b/"))
        .map(PathBuf::from)
        .collect();
    Ok(Mutant {
        found_by: found_by.trim().to_owned(),
        why: why.join(" "),
        changed_lines: count('+', "+++ ").max(count('-', "--- ")),
        files,
        name,
        patch,
    })
}

/// `wanted` of the kills, spread over the oracles: one of each before a second one of any.
#[must_use]
pub fn spread(kills: &[Kill], wanted: usize) -> Vec<Kill> {
    let mut by_oracle: BTreeMap<&str, Vec<&Kill>> = BTreeMap::new();
    for kill in kills {
        by_oracle.entry(&kill.oracle).or_default().push(kill);
    }
    let rounds = by_oracle.values().map(Vec::len).max().unwrap_or(0);
    (0..rounds)
        .flat_map(|round| by_oracle.values().filter_map(move |own| own.get(round)))
        .take(wanted)
        .map(|kill| (*kill).clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_spread_over_oracles() {
        let kill = |name: &str, oracle: &str| Kill {
            name: name.into(),
            oracle: oracle.into(),
            seed: 0,
        };
        let kills = [kill("a", "x"), kill("b", "x"), kill("c", "y")];
        let names: Vec<String> = spread(&kills, 2).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(spread(&kills, 9).len(), 3);
    }
}
