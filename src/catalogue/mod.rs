//! The error catalogue: every code and reason with which valgate refuses a request.
//!
//! One table is the single source for responses, `docs/errors.md`, `valgate explain`, metric labels and log
//! lines. Codes and reasons are public contract: never renumbered, never renamed. Knows nothing of requests:
//! what a refusal looks like on the wire is `gateway::respond`'s business.

mod codes;
mod page;
mod reasons;

pub use codes::Code;
pub use page::{explain, markdown};
pub use reasons::{Actor, Reason};

#[cfg(test)]
mod tests {
    use super::{Code, Reason};

    #[test]
    fn every_code_has_at_least_one_reason() {
        for code in Code::ALL {
            assert!(code.reasons().next().is_some(), "{} has no reason", code.number());
        }
    }

    #[test]
    fn numbers_and_names_are_unique_and_ordered() {
        let numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| (reason.code(), reason.name())).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a reason stands twice");
    }

    #[test]
    fn a_code_is_found_by_number_in_any_case() {
        assert_eq!(Code::find("val-020"), Some(Code::InvalidToken));
        assert_eq!(Code::find("020"), Some(Code::InvalidToken));
        assert_eq!(Code::find("VAL-999"), None);
    }
}
