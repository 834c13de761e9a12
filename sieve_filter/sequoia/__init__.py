"""The only package that loads PySequoia."""
