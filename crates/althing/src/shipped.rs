//! What is inside the binary: the default profile and a small model, so that a network can start
//! from nothing.

use althing_runtime::{Package, PackageError};
use std::collections::BTreeMap;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../../models/tiny-stories/package/", $name)).as_slice())),*]
    };
}

/// The files of the shipped model's package.
const TINY_STORIES: [(&str, &[u8]); 5] =
    files!["README.md", "config.json", "model.safetensors", "model.toml", "tokenizer.json"];

/// The shipped model's package.
///
/// # Errors
/// Never for a binary that passed its tests.
pub fn tiny_stories() -> Result<Package, PackageError> {
    let files: BTreeMap<_, _> = TINY_STORIES.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    Package::from_files(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_binary_has_every_file_of_the_package() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-stories");
        let committed = std::fs::read_to_string(format!("{directory}/CID")).unwrap();
        assert_eq!(super::tiny_stories().unwrap().cid.to_string(), committed.trim());
    }
}
