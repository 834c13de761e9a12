"""The only package that starts openssl and gpgsm."""
