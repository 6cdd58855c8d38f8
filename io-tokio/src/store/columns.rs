//! How the vocabulary of the core stands in columns.

use bowline_core::crypto::SecretKey;
use bowline_core::id::{MemberId, PeerKey, Role};
use bowline_core::time::Wall;
use bowline_core::wire::{Base64Body, Priority, Suite};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, RowIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;

use super::desk::{int, uint};

/// `session:KEY` or `member:ID`.
pub(super) fn peer(key: &PeerKey) -> String {
    match key {
        PeerKey::Session(pubkey) => format!("session:{pubkey}"),
        PeerKey::Member(id) => format!("member:{id}"),
    }
}

pub(super) fn get_peer(row: &Row<'_>, column: impl RowIndex + Copy) -> rusqlite::Result<PeerKey> {
    let text: String = row.get(column)?;
    match text.split_once(':') {
        Some(("session", key)) => key.parse().map(PeerKey::Session).map_err(unreadable),
        Some(("member", id)) => Ok(PeerKey::Member(MemberId::from(id))),
        _ => Err(unreadable(format!("{text:?} is not a peer"))),
    }
}

/// Hex and other forms that parse what they display.
pub(super) fn get_parsed<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    row.get::<_, String>(column)?.parse().map_err(unreadable)
}

pub(super) fn get_id<T: From<String>>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T> {
    row.get::<_, String>(column).map(T::from)
}

pub(super) fn get_id_if_any<T: From<String>>(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<String>>(column)?.map(T::from))
}

pub(super) fn wall(at: Wall) -> i64 {
    int(at.0)
}

pub(super) fn get_wall(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Wall> {
    row.get(column).map(uint).map(Wall)
}

pub(super) fn get_wall_if_any(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<Wall>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(uint).map(Wall))
}

pub(super) fn get_count(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u64> {
    row.get(column).map(uint)
}

pub(super) fn get_base64(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Base64Body> {
    Base64Body::parse(&row.get::<_, String>(column)?).map_err(unreadable)
}

pub(super) fn get_suite_if_any(
    row: &Row<'_>,
    column: impl RowIndex + Copy,
) -> rusqlite::Result<Option<Suite>> {
    match row.get::<_, Option<String>>(column)? {
        None => Ok(None),
        Some(_) => get_named(row, column, Suite::ALL, Suite::as_str).map(Some),
    }
}

pub(super) fn get_priority(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Priority> {
    get_named(
        row,
        column,
        [Priority::Now, Priority::Next, Priority::Low],
        Priority::as_str,
    )
}

pub(super) fn get_role(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Role> {
    get_named(
        row,
        column,
        [Role::Session, Role::Service, Role::ControlPlane],
        Role::as_str,
    )
}

/// One of a few values, by the name that each has.
pub(super) fn get_named<T, const N: usize>(
    row: &Row<'_>,
    column: impl RowIndex,
    all: [T; N],
    name: impl Fn(T) -> &'static str,
) -> rusqlite::Result<T>
where
    T: Copy,
{
    let text: String = row.get(column)?;
    all.into_iter()
        .find(|value| name(*value) == text)
        .ok_or_else(|| unreadable(format!("{text:?} has no meaning here")))
}

/// # Panics
/// If `value` has no JSON form: a map whose keys are not strings.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a row has a JSON form")
}

pub(super) fn get_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(unreadable)
}

pub(super) fn secret(key: &SecretKey) -> &[u8] {
    key.expose()
}

pub(super) fn get_secret(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<SecretKey> {
    row.get(column).map(SecretKey::from_bytes)
}

pub(super) fn get_secret_if_any(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<SecretKey>> {
    Ok(row
        .get::<_, Option<[u8; 32]>>(column)?
        .map(SecretKey::from_bytes))
}

/// A value that we never wrote: the database cannot be trusted.
fn unreadable(detail: impl Display) -> rusqlite::Error {
    let error = FromSqlError::Other(detail.to_string().into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}
