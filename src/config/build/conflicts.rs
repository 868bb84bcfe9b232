//! Routes that match the same requests: which one serves would be a matter of luck.

use super::Build;
use crate::config::place::Place;
use crate::config::settings::Route;

impl Build<'_, '_> {
    /// Tells routes that match the same requests, and names that two routes share.
    pub(super) fn distinct_routes(&mut self, routes: &[Option<Route>], place: &Place) {
        for (index, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let mut earlier = routes
                .iter()
                .enumerate()
                .take(index)
                .filter_map(|(index, other)| Some((index, other.as_ref()?)));
            let clash = earlier.clone().find_map(|(first, other)| {
                other.matches.overlap(&route.matches).map(|method| (first, other, method.to_owned()))
            });
            if let Some((first, other, method)) = clash {
                let line = self.mistakes.line_of(&place.index(first));
                let what = if method == "*" { "requests".to_owned() } else { format!("{method} requests") };
                self.mistakes.add(
                    &place.index(index).field("match"),
                    format!(
                        "`{}` matches the same {what} as the route `{}`, on line {line}",
                        route.matches, other.name
                    ),
                    "make host, path or methods of one of them differ; a more specific path beside a general one is \
                     fine, and `GET` includes `HEAD`",
                );
            } else if let Some((first, _)) = earlier.find(|(_, other)| other.name == route.name) {
                let line = self.mistakes.line_of(&place.index(first));
                let message = format!("the route `{}` is already there, on line {line}", route.name);
                self.mistakes.add(&place.index(index).field("name"), message, "give each its own name");
            }
        }
    }
}
