//! Interfaces of this router that tenants may attach, as the controller says.

use std::collections::BTreeSet;

use weft_discovery::proto::item::Item;
use weft_discovery::view::View;

/// None where it says nothing of that.
pub(super) fn read(view: &View) -> BTreeSet<String> {
    let settings = view.values().filter_map(|item| match &item.item {
        Some(Item::Settings(settings)) => Some(settings.granted.iter().cloned()),
        _ => None,
    });
    settings.flatten().collect()
}
