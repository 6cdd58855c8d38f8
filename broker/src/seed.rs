//! Randomness for the machines: 32 bytes from the system, once for each.

use std::fs::File;
use std::io::{self, Read};

/// # Errors
/// If the system gives none.
pub fn from_system() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_seeds_differ() {
        let seed = || super::from_system().unwrap();
        assert_ne!(seed(), seed());
    }
}
