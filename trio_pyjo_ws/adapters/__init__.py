"""Whatever needs a third package: one module each, imported only where it is used."""
