"""Keys that owners publish: WKD and DANE. Never during a delivery."""
