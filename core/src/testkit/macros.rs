//! Checks that end a scenario with a reason instead of a panic.

/// Fails the scenario with the reason unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err(format!($($reason)+).into());
        }
    };
}

/// Fails the scenario unless both are equal; the third argument says what they are.
macro_rules! same {
    ($found:expr, $expected:expr, $what:expr) => {
        // Matched and not bound, so that temporaries live to the end.
        match (&$found, &$expected) {
            (found, expected) => ensure!(*found == *expected, "{}: {found:?}, expected {expected:?}", $what),
        }
    };
}

/// Fails the scenario unless the result is an error of this kind; gives the error.
macro_rules! refused {
    ($result:expr, $kind:ident, $what:expr) => {{
        match $result {
            Ok(_) => return Err(format!("{} was accepted", $what).into()),
            Err(error) => {
                same!(error.kind(), $crate::ErrorKind::$kind, format!("{} ({error})", $what));
                error
            }
        }
    }};
}
