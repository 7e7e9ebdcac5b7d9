"""A statistical opinion on images that no ledger knows: does this radiograph look synthetic?"""
