//! Writes `docs/GUARANTEES.md` from what it is made of.

use std::fs;

use anyhow::Context;

use sim::{guarantee, mutant, sweep};

const PAGE: &str = "docs/GUARANTEES.md";
const SWEEP: &str = "docs/sweep.json";

pub(crate) fn run() -> anyhow::Result<bool> {
    let root = super::mutants::root()?;
    let mutants = mutant::of_core(&root.join(super::mutants::PATCHES))?;
    let kills = super::mutants::read_kills(&root)?;
    let kept = sweep::Kept::read(&root.join(SWEEP)).with_context(|| {
        format!("`sweep --seeds 20000 --from 2000000 --record {SWEEP}` makes it")
    })?;
    let page = guarantee::page(&mutants, &kills, &kept);
    fs::write(root.join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
    eprintln!("{PAGE} is written");
    Ok(true)
}
