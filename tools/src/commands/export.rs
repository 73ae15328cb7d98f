//! `limbeck export`: a model in another format. Never overwrites.

use crate::cli::Export;
use crate::engine;
use crate::failure::Failure;
use limbeck::Error;

pub fn export(typed: &Export) -> Result<(), Failure> {
    if typed.out.exists() {
        return Err(Failure::Failed(Error::Occupied {
            path: typed.out.clone(),
            found: "something".into(),
            mend: "choose another name, or remove it".into(),
        }));
    }
    engine::export(&typed.model, &typed.out, typed.format)?;
    eprintln!("wrote {}", typed.out.display());
    Ok(())
}
