//! Writes the seeds and the findings of a target into a folder, each as a file: `seeds TARGET FOLDER`.

use std::env;
use std::fs;
use std::io::{Error, Result};
use std::path::Path;

use spiffe_authz_fuzz::seeds::{found, seeds};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [target, folder] = arguments.as_slice() else { return Err(Error::other("usage: seeds TARGET FOLDER")) };
    fs::create_dir_all(folder)?;
    for (number, input) in [seeds(target)?, found(target)?].concat().iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{number}")), input)?;
    }
    Ok(())
}
