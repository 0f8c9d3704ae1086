"""Operations on a system under test and its flags, for commands and web pages alike.

Every operation returns or yields typed values. It prints nothing, lays out no text and knows no exit codes; a
driver does.
"""
