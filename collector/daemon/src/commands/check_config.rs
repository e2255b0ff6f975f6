//! `emberd check-config`: is the configuration usable, and what does it come to?

use std::process::ExitCode;

use super::Where;

pub(super) fn run(place: &Where) -> anyhow::Result<ExitCode> {
    let config = match place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    if let Err(wrong) = crate::logging::check() {
        eprintln!("{wrong}");
        return Ok(ExitCode::from(super::EX_CONFIG));
    }
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
    }
    let origin = place.config.as_ref().map_or("the defaults".into(), |file| file.display().to_string());
    println!("{origin}: fine");
    Ok(ExitCode::SUCCESS)
}
