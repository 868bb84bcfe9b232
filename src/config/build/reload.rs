//! `reload`.

use super::Build;
use super::values::{HOUR, MILLISECOND};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::Reload;

impl Build<'_, '_> {
    pub(super) fn reload(&mut self, raw: &raw::Reload, place: &Place) -> Option<Reload> {
        let interval = self.duration(&raw.interval, &place.field("interval"), 100 * MILLISECOND, HOUR)?;
        Some(Reload { interval: raw.watch.then_some(interval) })
    }
}
