//! `weft router`: assembles BGP, overlay, data plane and API into one process.
