//! Routes: which rules and which upstream a request falls under.
//!
//! A path is forwarded verbatim or refused. Matching uses its decoded segments, and a path that can be read in more
//! than one way is accepted only where the route allows that way and every reading leads to the same route.

mod matching;
mod path;
mod pattern;
mod table;

pub use matching::{HostPattern, MethodSet, RouteMatch};
pub use path::{Ambiguity, PathRefused, RequestPath};
pub use pattern::{PathPattern, PathPatternError, PathSegment};
pub use table::{Conflict, Found, RouteId, RouteTable};
