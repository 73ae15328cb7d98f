//! The text of a `config.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::checkpoint::parse_config;
use std::path::Path;

fuzz_target!(|text: &str| {
    let path = Path::new("config.json");
    #[cfg_attr(not(feature = "train"), expect(unused_variables))]
    if let Ok(config) = parse_config(path, text) {
        #[cfg(feature = "train")]
        {
            let again = limbeck::checkpoint::config_to_json(&config).to_string();
            assert_eq!(parse_config(path, &again).unwrap(), config);
        }
    }
});
