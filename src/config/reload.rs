//! The `[reload]` section of a configuration.

use std::time::Duration;

use crate::types::setting::default;
use crate::types::setting::settings;

settings! {
    /// When the configuration is loaded anew while the process runs.
    pub struct ReloadConfig {
        /// How often the configuration file, and the files that it names, are looked
        /// at for changes, which are then taken up as on SIGHUP. A change counts once
        /// it has stood for a second, so that a file which is just being written is
        /// not read in half. `"0s"`: never; SIGHUP alone loads anew.
        pub watch_interval: Duration = default("5s").within("0s", "1h"),
    }
}
