"""What the gateway tells, from where it is written: routes from the contract, the document from the package `paymesh`."""
