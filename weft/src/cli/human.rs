//! Numbers as humans read them.

/// `45s`, `12m30s`, `3h12m`, `5d3h`: two units at most.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `512 B`, `45.1 MiB`: powers of 1,024.
pub(super) fn size(octets: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if octets < 1024 {
        return format!("{octets} B");
    }
    // Tenths of a unit in whole numbers; rounding up to 1,024.0 goes on to the next unit.
    let mut tenths = u128::from(octets) * 10;
    for unit in units {
        tenths = (tenths + 512) / 1024;
        if tenths < 10_240 || unit == "TiB" {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{octets} B")
}

/// `1 neighbour`, `2 neighbours`, `1,300 prefixes`.
pub(crate) fn several(number: u64, one: &str) -> String {
    let ending = match (number, one.ends_with(['s', 'x'])) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {one}{ending}", count(number))
}

/// `497,323`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (442_800, "5d03h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn sizes_round_to_a_tenth() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (47_291_000, "45.1 MiB"),
            (1 << 40, "1.0 TiB"),
        ];
        for (octets, text) in cases {
            assert_eq!(size(octets), text);
        }
    }

    #[test]
    fn what_is_counted_has_its_number() {
        assert_eq!(several(1, "neighbour"), "1 neighbour");
        assert_eq!(several(0, "neighbour"), "0 neighbours");
        assert_eq!(several(1_300, "prefix"), "1,300 prefixes");
    }

    #[test]
    fn counts_have_groups_of_three() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(497_323)],
            ["0", "999", "1,000", "497,323"]
        );
    }
}
